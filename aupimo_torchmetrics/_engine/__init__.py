"""The engine: torch only, pure functions, no state."""
