HEAD


class Gap(Numbered):
    """A source that leaves a row out."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        yield from (entry for entry in super().rows(start, stop) if entry[0] != 12)


class Short(Numbered):
    """A source that ends early."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        yield from super().rows(start, min(stop, 33))


def test_a_source_that_miscounts_is_found_out(options: Options) -> None:
    with pytest.raises(SourceError, match="numbered: row 13 came where row 12 was due"):
        convert(Gap(45), options)
    with pytest.raises(SourceError, match="numbered: the rows end at 33, 45 were counted"):
        convert(Short(45), options)
