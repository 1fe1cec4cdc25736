"""lumbar's training loop beside a bare PyTorch loop on a replayed batch: same model, batch, type.

    python benchmarks/train.py --json train.json --markdown train.md

The volumes are generated, in a temporary folder. On a GPU also the share of its peak that the
step's arithmetic comes to (MFU), and the share of time outside kernels. Medians of interleaved
rounds, the least and the greatest beside them; a missed target is reported and is no error.
`training.run` is what runs.
"""

if __name__ == "__main__":
    from training.run import main

    main()
