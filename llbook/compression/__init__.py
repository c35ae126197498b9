"""Training as a lossless code: coders whose model trains as it codes (App. A)."""
