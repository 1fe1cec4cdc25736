"""`lumbar preprocess` beside its peers and beside the floor: the same files, processes and run.

    python benchmarks/preprocess.py --json preprocess.json --markdown preprocess.md

The files are generated, in a temporary folder. The floor is reading each file once and decoding it
with the fastest decoder installed. Medians of interleaved rounds, the least and the greatest beside
them; a missed target is reported and is no error. ``pip install lumbar[bench]`` has the
peers; `ingest.run` is what runs.
"""

if __name__ == "__main__":
    # Worker processes import this file again, and need none of this.
    from ingest.run import main

    main()
