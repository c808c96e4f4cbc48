"""A pickle machine that makes nothing."""
