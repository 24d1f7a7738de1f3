"""An OpenAI-compatible server in front of ranks that compute: HTTP, text, and who waits for what."""
