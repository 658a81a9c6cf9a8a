"""What lies elsewhere than in our stores: looked at, and never written to."""
