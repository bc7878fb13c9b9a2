"""From a video file to frames and their times."""
