"""What a benchmark writes: JSON, Markdown and a picture."""
