"""Is data loading the bottleneck? Measures lumbar's reader beside usual loaders."""
