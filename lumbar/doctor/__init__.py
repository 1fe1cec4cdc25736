"""What is wrong with a machine before an hour is lost: what is here, and checks that can fail."""
