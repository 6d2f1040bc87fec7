from cbsn.evaluation.report.html import mark_best


def _best(*columns):
    rows = [dict(row) for row in zip(*([(h, t) for t in ts] for h, ts in columns), strict=True)]
    return [[cell.text for cell in row if cell.best] for row in mark_best(rows)]


def test_the_best_of_each_metric_is_marked():
    assert _best(
        ("method", ["1", "2", "3"]),
        ("PSNR", ["9.5", "30.10", "inf"]),
        ("SSIM (2 of 3)", ["0.9", "0.9", "0.8"]),
        ("LPIPS", ["0.25", "nan", "–"]),
        ("s/image", ["1", "2", "3"]),
    ) == [["0.9"], ["0.9"], ["inf"]]
    assert _best(("LPIPS (1 of 3)", ["0.3", "0.2", "1,000"])) == [[], ["0.2"], []]


def test_a_method_alone_is_not_the_best():
    assert _best(("method", ["a"]), ("PSNR", ["30"])) == [[]]


def test_all_but_the_first_column_are_numbers():
    ((method, psnr),) = mark_best([{"method": "a", "PSNR": "30"}])
    assert (method.number, psnr.number) == (False, True)
