"""
The data plane's hard work: cutting, checking, sealing and opening whole runs of
packets, by the fastest means that there are.
"""
