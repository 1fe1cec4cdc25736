"""The loaders that are measured: lumbar's reader, DataLoaders, replayed batches."""
