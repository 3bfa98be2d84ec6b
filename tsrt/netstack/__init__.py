"""A userspace TCP/IP stack as pure machines."""
