"""lumbar: lumbar-spine MRI from DICOM files to a trained CNN+LSTM.

The way of the data, one direction only::

    DICOM tree --pipeline--> cache on disk --train--> model --> submission.csv

`lumbar.pipeline` decodes once, `lumbar.cache` is the contract, `lumbar.train` has the tensors, and
`lumbar.commands` and `lumbar.display`, started by `lumbar.cli`, are what talks to a person.
"""

__version__ = "0.1.0"
