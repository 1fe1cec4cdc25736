"""The offline half: DICOM and CSV files become a cache. It imports neither DALI nor torch.

The way of the data, which `lumbar.pipeline.preprocess` reads as its steps:

1. ``source``: find the layout, list the files, read the CSV tables, group the files into series.
2. ``output``: open the cache, and skip the series whose files are unchanged.
3. ``execution``: send each remaining series to a worker process.
4. ``series``: convert one series to a stored volume. It parses and decodes the files by ``dicom``,
   and orders the slices and places them in the patient by ``geometry``.
5. ``output``: write the tables of series, labels, points and rejected files.

``maintenance`` has the commands for a finished cache: merge, repair, convert the profile.
"""
