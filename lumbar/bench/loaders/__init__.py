"""The loaders that are measured: lumbar's reader and DataLoaders."""
