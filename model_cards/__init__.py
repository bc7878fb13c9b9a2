"""One TOML file for each model that the program can use; read by gpt4video_cli.weights.card."""
