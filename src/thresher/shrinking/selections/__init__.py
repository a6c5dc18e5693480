"""Which units of a group stay: i-SpaSP and what it is compared with."""
