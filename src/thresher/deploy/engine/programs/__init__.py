"""A graph laid out, packed, tuned, run, saved: what the native library is given."""
