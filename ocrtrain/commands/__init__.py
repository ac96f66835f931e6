"""The commands: plan, show_batch, demo (run by `tools/`), evaluate and ask (run by
`ocrtrain/evaluate.py` and `ask.py`). Each module has a `main(arguments)`. Nothing imports this
package.
"""
