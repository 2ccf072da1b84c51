"""The OpenAI-shaped API on this machine: files, jobs, graders, models and chat behind one HTTP server."""
