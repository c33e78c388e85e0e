"""Statistics over the topics: how many bad images pass, and how sure that is. Pure; no IO, no clock."""
