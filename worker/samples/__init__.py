"""The sample images that ship, with what people thought of them, and ways to spoil an image."""
