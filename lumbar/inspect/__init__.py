"""What a person looks at: sheets of pictures, the report, a choice of series, the summary."""
