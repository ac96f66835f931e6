"""How the page of a batch looks: its style sheet, and nothing else."""

STYLE = """
:root { --ink: #1c2128; --soft: #667080; --line: #dfe3e8; --ground: #f5f6f8; --card: #fff;
  --image: #7aa5d8; --context: #c9d1db; --supervised: #45a36b; --mark: #d3f0dd; --hole: #d9534f; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1280px; background: var(--ground);
  color: var(--ink); font: 14px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 26px; }
h2 { margin: 32px 0 8px; font-size: 18px; }
h3 { margin: 0; font-size: 14px; font-weight: 400; color: var(--soft); }
h3 b { color: var(--ink); font-weight: 600; }
.run { margin: 2px 0 10px; color: var(--soft); }
.run, .verdict, h3 b, td.code, .tokens { font-family: ui-monospace, "DejaVu Sans Mono", Menlo,
  Consolas, monospace; overflow-wrap: anywhere; }
.verdict { display: inline-block; margin: 0; padding: 4px 10px; border-radius: 6px;
  font-size: 13px; }
.verdict.good { background: #dcf3e4; color: #14532d; }
.verdict.open { background: #fdf0d0; color: #6b4a00; }
.verdict.bad { background: #fbdcdb; color: #7f1d1d; font-weight: 700; }
.problem { margin: 8px 0; color: #a11c1c; white-space: pre-wrap; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin-top: 14px; }
.tiles div { padding: 8px 14px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
.tiles b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.tiles span, .facts, .legend, figcaption, .fill { color: var(--soft); font-size: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 8px; }
.legend i { display: inline-block; width: 14px; height: 10px; margin-right: 5px;
  border-radius: 2px; }
.legend .padding { border: 1px solid var(--line); }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 3px 10px;
  align-items: center; font-size: 12px; font-variant-numeric: tabular-nums; }
.label em { color: var(--soft); font-style: normal; }
.bar { display: flex; height: 16px; overflow: hidden; border-radius: 3px; background: var(--card); }
.segment { position: relative; height: 100%; flex: none; border-right: 1px solid #fff; }
.segment i { position: absolute; top: 0; height: 100%; }
.image { background: var(--image); }
.segment .image { box-shadow: inset -1px 0 #fff8; }
.context { background: var(--context); }
.supervised { background: var(--supervised); }
.hole, .hole i { background: var(--hole); min-width: 3px; }
.padding { height: 100%; flex: none; background: repeating-linear-gradient(135deg, #fff 0 4px,
  #e6e9ed 4px 6px); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
table { width: 100%; border-collapse: collapse; font-size: 12.5px;
  font-variant-numeric: tabular-nums; }
th { padding: 7px 10px; border-bottom: 1px solid var(--line); color: var(--soft);
  font-weight: 500; text-align: left; }
th.number { text-align: right; }
td { padding: 4px 10px; border-bottom: 1px solid #eef0f3; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
tr.skipped td { background: #fdeceb; }
.number { text-align: right; }
td.code { font-size: 11.5px; color: var(--soft); }
a { color: #1d5fa8; text-decoration: none; }
a:hover { text-decoration: underline; }
article { margin: 10px 0; padding: 14px 16px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
article:target { border-color: #1d5fa8; }
.facts { margin: 0 0 8px; }
.figures { display: flex; flex-wrap: wrap; gap: 14px; margin: 8px 0 12px; }
figure { position: relative; margin: 0; max-width: 100%; }
figure img { display: block; width: 300px; height: auto; max-width: 100%; cursor: zoom-in;
  border: 1px solid var(--line); border-radius: 4px; }
figure input { position: absolute; opacity: 0; }
figure input:focus-visible + img { outline: 2px solid #1d5fa8; }
figure input:checked + img { width: auto; cursor: zoom-out; }
.beside { display: grid; grid-template-columns: 300px 1fr; gap: 18px; align-items: start; }
.beside .figures { flex-direction: column; margin: 4px 0 0; }
.beside:has(:checked) { grid-template-columns: 1fr; }
@media (max-width: 760px) { .beside { grid-template-columns: 1fr; } }
figcaption { max-width: 300px; margin-top: 4px; overflow-wrap: anywhere; }
.tokens { font-size: 13px; line-height: 1.75; white-space: pre-wrap; }
.tokens span { unicode-bidi: isolate; border-left: 1px solid #c3cad3; }
.tokens span:hover, .tokens kbd:hover { background: #ffe9a8; }
.tokens u { color: #a0a8b4; text-decoration: none; }
mark { padding: 1px 0; border-radius: 3px; background: var(--mark); color: inherit; }
mark span { border-left-color: #8ecba6 !important; }
kbd { padding: 0 5px; border: 1px solid #c6cdd6; border-radius: 4px; background: #eef1f4;
  color: #56606d; font: inherit; font-size: 11px; white-space: nowrap; }
kbd.image { border-color: #8fb2dc; background: #deeafa; color: #23507f; }
.note { margin: 8px 0; color: var(--soft); font-style: italic; white-space: normal; }
@media print { body { background: #fff; } }
"""
