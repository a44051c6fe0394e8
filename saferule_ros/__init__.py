"""Thin ROS 2 nodes over saferule_core: messages in, core calls, messages out."""
