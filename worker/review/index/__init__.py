"""The index: what the topics say, in Redis, in the shape in which the desk asks for it."""
