"""The errors of the desk. Each message says what was wrong and what to do."""


class DeskError(Exception):
    """The desk did not do what was asked."""


class UnknownItem(DeskError):
    """There is no such item; or it was settled long ago and is no longer kept in the index."""


class LeaseLost(DeskError):
    """The lease has run out, was taken away, or was never given: somebody else may have the item."""


class NotPossible(DeskError):
    """The item is not in a state in which this can be done: settled already, held, not decided yet."""


class NotReady(DeskError):
    """The index is being built from the topics; trying again in a moment helps."""


class NotRecorded(DeskError):
    """The log did not confirm the decision, so it does not count yet. Send it again with the same decision id."""
