"""A study folder and everything that works on one."""
