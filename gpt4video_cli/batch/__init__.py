"""Many jobs from a shell script: read, decoded, encoded and answered side by side, each result kept at once."""
