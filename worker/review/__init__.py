"""The review desk: what people must look at reaches them, and what they decide flows back.

The topics are the truth and Redis is the index: `desk` is the face that everything else uses, `projector` fills the
index from the topics, `index` holds it, and `item_state` tells what a list of decisions makes of an item.
"""
