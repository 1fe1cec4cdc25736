"""From a cache to predictions; the rooms, in the order of the work.

``plan`` chooses samples, slices, crops and augmentation of every step, without pixels. ``kernels``
renders a view's pixels on the CPU, and ``reader`` turns a plan into batches on the device.
``model`` has the networks, ``loss`` what they minimise, ``optim`` the optimiser and its schedule;
``locator`` finds the discs that a network of discs is trained on. ``run`` is a run on disk:
configuration, split, checkpoint. ``trainer`` has the training loop, and ``sweep`` starts many runs.
``inference`` predicts with runs, ``ensemble`` combines their predictions, and ``evaluation`` has
the metric, the prediction tables and the submission. ``telemetry`` measures the machine.
"""
