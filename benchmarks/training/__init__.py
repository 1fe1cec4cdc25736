"""What `train.py` measures: lumbar's loop, a bare one, and what a GPU does meanwhile."""
