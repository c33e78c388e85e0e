"""The items and decisions of the topics in one SQLite file of this desk. Searches and exports read it, and the index in
Redis is filled from it."""
