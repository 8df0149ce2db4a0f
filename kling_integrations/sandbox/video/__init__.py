"""The MP4s of the sandbox: what they show, how they are encoded, which are kept."""
