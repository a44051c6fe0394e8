"""Logged data: transitions in memory, and rosbag2 files on disk."""
