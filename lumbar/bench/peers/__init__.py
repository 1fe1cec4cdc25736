"""Other libraries' loaders, of ``lumbar[bench]``: each module alone imports its library."""
