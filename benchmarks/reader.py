"""The reader beside its peers: same cache, same crops, same augmentation, same cores, one run.

    python benchmarks/reader.py --json reader.json --markdown reader.md

Without ``--cache`` it makes generated studies and their cache in a temporary folder. Medians of
interleaved runs, the least and the greatest beside them; a missed target is named and is no
error. ``pip install lumbar[bench]`` has the peers; `contest.run` is what runs.
"""

if __name__ == "__main__":
    # Worker processes import this file again, and need none of this.
    from contest.run import main

    main()
