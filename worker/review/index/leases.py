"""Leases: an item and its near duplicates are one reviewer's for a while.

Redis itself runs the scripts, each as one step that nothing interrupts, and its clock alone decides when a lease is
over, so desks need neither locks nor equal clocks. Tokens grow from lease to lease, and as they are never below the
time in microseconds, also across a lost Redis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import redis

from worker.review.errors import LeaseLost, NotReady
from worker.review.index import keys

MAX_TOGETHER: Final = 200
"""Near duplicates that one lease covers at most."""

LOOKED_AT: Final = 200
"""Items that one script looks at, at most."""
_FIRST_LANE: Final = 2
"""The first of the script's keys that is a lane."""
_WITHDRAWN: Final = "withdrawn"

_FRESH = """
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function fresh()
  local token = string.format('%.0f', math.max(now_us, tonumber(redis.call('GET', prefix .. 'token') or '0') + 1))
  redis.call('SET', prefix .. 'token', token)
  return token
end
local function grant(cluster, items, reviewer, queue, milliseconds)
  local token = fresh()
  local ends = math.floor(now_us / 1000) + milliseconds
  local lease = prefix .. 'lease|' .. token
  local named = table.concat(items, '\\n')
  redis.call('HSET', lease, 'reviewer', reviewer, 'queue', queue, 'cluster', cluster, 'items', named)
  redis.call('PEXPIRE', lease, milliseconds)
  redis.call('SET', prefix .. 'job|' .. cluster, token, 'PX', milliseconds)
  for _, item in ipairs(items) do redis.call('ZADD', prefix .. 'leased|' .. queue, ends, item) end
  return {token, ends, items}
end
"""

_TOKEN = "local prefix = KEYS[1]\n" + _FRESH + "return fresh()"  # no secret

# KEYS: prefix, lanes. ARGV: reviewer, queue, milliseconds, most items, most leases, the one item wanted or '', the lane
# and the place in it to begin at, the most items to look at. The reply: the leases, and where to go on, lane 0 at the
# end.
# Items that are closed to the reviewer are jumped over: as they stand in a set of their own with the same scores, the
# first item of the lane that is not among them is found by halving, whatever their number.
_LEASE = (
    "local prefix = KEYS[1]\n"
    + _FRESH
    + """
if redis.call('EXISTS', prefix .. 'ready') == 0 then return false end
local reviewer, queue, wanted = ARGV[1], ARGV[2], ARGV[6]
local milliseconds, together, most = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', prefix .. 'leased|' .. queue, '-inf', math.floor(now_us / 1000))
local function is_out(item) return redis.call('SISMEMBER', prefix .. 'out|' .. item, reviewer) == 1 end
local granted = {}
local function try(lane, item)
  local cluster = redis.call('HGET', prefix .. 'item|' .. item, 'cluster')
  if not cluster or redis.call('EXISTS', prefix .. 'job|' .. cluster) == 1 then return end
  local items = {item}
  local others = redis.call('SMEMBERS', prefix .. 'cluster|' .. cluster)
  table.sort(others)
  for _, other in ipairs(others) do
    if #items >= together then break end
    if other ~= item and redis.call('ZSCORE', lane, other) and not is_out(other) then items[#items + 1] = other end
  end
  granted[#granted + 1] = grant(cluster, items, reviewer, queue, milliseconds)
end
if wanted ~= '' then
  if redis.call('ZSCORE', KEYS[2], wanted) then try(KEYS[2], wanted) end
  return {granted, 0, 0}
end
local function open_until(lane, closed, bound)
  return redis.call('ZCOUNT', lane, '-inf', bound) - redis.call('ZCOUNT', closed, '-inf', bound)
end
local function score(lane, place) return redis.call('ZRANGE', lane, place, place, 'WITHSCORES')[2] end
local function jump(lane, place)
  local closed, here = lane .. '|closed|' .. reviewer, score(lane, place)
  local before, last = open_until(lane, closed, '(' .. here), redis.call('ZCARD', lane) - 1
  if open_until(lane, closed, here) > before then return place + 1 end
  if open_until(lane, closed, score(lane, last)) == before then return last + 1 end
  local low, high = place, last
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if open_until(lane, closed, score(lane, middle)) > before then high = middle else low = middle end
  end
  return redis.call('ZCOUNT', lane, '-inf', '(' .. score(lane, high))
end
local place, left = tonumber(ARGV[8]), tonumber(ARGV[9])
for index = tonumber(ARGV[7]), #KEYS do
  local lane = KEYS[index]
  while #granted < most do
    local items = redis.call('ZRANGE', lane, place, place + 15)
    if #items == 0 then break end
    for _, item in ipairs(items) do
      if #granted >= most then break end
      if left <= 0 then return {granted, index, place} end
      left = left - 1
      if is_out(item) then
        place = jump(lane, place)
        break
      end
      try(lane, item)
      place = place + 1
    end
  end
  if #granted >= most then break end
  place = 0
end
return {granted, 0, 0}
"""
)

# KEYS: prefix. ARGV: cluster, queue, reviewer, milliseconds, items. Whoever had the cluster has it no more.
_GRANT = (
    "local prefix = KEYS[1]\n"
    + _FRESH
    + """
local items = {}
for index = 5, #ARGV do items[#items + 1] = ARGV[index] end
return grant(ARGV[1], items, ARGV[3], ARGV[2], tonumber(ARGV[4]))
"""
)

# KEYS: prefix. ARGV: token, reviewer, milliseconds. Never makes a lease shorter.
_EXTEND = (
    "local prefix = KEYS[1]\n"
    + _FRESH
    + """
local lease = prefix .. 'lease|' .. ARGV[1]
local found = redis.call('HMGET', lease, 'reviewer', 'queue', 'cluster', 'items')
if found[1] ~= ARGV[2] or redis.call('GET', prefix .. 'job|' .. found[3]) ~= ARGV[1] then return false end
local milliseconds = math.max(tonumber(ARGV[3]), redis.call('PTTL', lease))
local ends = math.floor(now_us / 1000) + milliseconds
redis.call('PEXPIRE', lease, milliseconds)
redis.call('PEXPIRE', prefix .. 'job|' .. found[3], milliseconds)
for item in string.gmatch(found[4], '[^\\n]+') do redis.call('ZADD', prefix .. 'leased|' .. found[2], ends, item) end
return {ARGV[1], ends, found[4], found[2], found[3]}
"""
)

# KEYS: prefix. ARGV: cluster, the highest token that ends, an item that the lease must cover.
DROP: Final = """
local prefix = KEYS[1]
local token = redis.call('GET', prefix .. 'job|' .. ARGV[1])
if not token or tonumber(token) > tonumber(ARGV[2]) then return 0 end
local lease = prefix .. 'lease|' .. token
local found = redis.call('HMGET', lease, 'queue', 'items')
if found[1] and not string.find('\\n' .. found[2] .. '\\n', '\\n' .. ARGV[3] .. '\\n', 1, true) then return 0 end
redis.call('DEL', lease, prefix .. 'job|' .. ARGV[1])
if found[1] then
  for item in string.gmatch(found[2], '[^\\n]+') do redis.call('ZREM', prefix .. 'leased|' .. found[1], item) end
end
return 1
"""

# KEYS: prefix. ARGV: token, items to leave it.
_SHRINK = """
local lease = KEYS[1] .. 'lease|' .. ARGV[1]
local found = redis.call('HMGET', lease, 'queue', 'items')
if not found[1] then return 0 end
local gone, kept = {}, {}
for index = 2, #ARGV do
  gone[ARGV[index]] = true
  redis.call('ZREM', KEYS[1] .. 'leased|' .. found[1], ARGV[index])
end
for item in string.gmatch(found[2], '[^\\n]+') do if not gone[item] then kept[#kept + 1] = item end end
redis.call('HSET', lease, 'items', table.concat(kept, '\\n'))
return 1
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease as the index knows it. The first of `items` is the one to look at."""

    token: int
    expires_at: datetime
    reviewer: str
    queue: str
    cluster: str
    items: tuple[str, ...]


class Leases:
    """Gives, keeps and ends leases. Safe for many threads and processes."""

    def __init__(self, client: redis.Redis, seconds: float) -> None:
        self._milliseconds = int(seconds * 1000)
        self._lease = client.register_script(_LEASE)
        self._grant = client.register_script(_GRANT)
        self._extend = client.register_script(_EXTEND)
        self._drop = client.register_script(DROP)
        self._shrink = client.register_script(_SHRINK)
        self._token = client.register_script(_TOKEN)
        self._redis = client

    def token(self) -> int:
        """A fresh token, above all that were given before."""
        return int(self._token(keys=[keys.PREFIX]))

    def next(self, lanes: Sequence[str], queue: str, reviewer: str, count: int) -> list[Grant]:
        """Leases of the first items in these lanes, one lane after the other, that are free and not closed to the
        reviewer. Raises NotReady."""
        return self._from_lanes(lanes, queue, reviewer, count, "")

    def take(self, lane: str, queue: str, reviewer: str, item_id: str) -> Grant | None:
        """A lease of that item, also if the reviewer skipped it; None when it is not in the lane, or somebody's.

        Raises NotReady.
        """
        return next(iter(self._from_lanes([lane], queue, reviewer, 1, item_id)), None)

    def grant(self, cluster: str, queue: str, reviewer: str, items: Sequence[str]) -> Grant:
        """A lease of these items, whoever has them."""
        reply = self._grant(keys=[keys.PREFIX], args=[cluster, queue, reviewer, self._milliseconds, *items])
        return _grant(reply, reviewer, queue, cluster)

    def extend(self, token: int, reviewer: str, item_id: str, at_least_seconds: float = 0.0) -> Grant:
        """Keeps the lease for its full time from now, or longer. Raises LeaseLost."""
        milliseconds = max(self._milliseconds, int(at_least_seconds * 1000))
        reply = self._extend(keys=[keys.PREFIX], args=[token, reviewer, milliseconds])
        grant = None
        if reply:
            items = tuple(reply[2].decode().split("\n"))
            grant = Grant(token, _time(reply[1]), reviewer, reply[3].decode(), reply[4].decode(), items)
        if grant is None or item_id not in grant.items:
            raise LeaseLost(f"the lease of {item_id} has run out or was taken away; lease it again")
        return grant

    def current(self, cluster: str, reviewer: str, item_id: str) -> Grant | None:
        """The reviewer's lease of the item, kept for its full time from now; None when they have none."""
        token: Any = self._redis.get(keys.job(cluster))
        try:
            return None if token is None else self.extend(int(token), reviewer, item_id)
        except LeaseLost:
            return None

    def end(self, token: int, reviewer: str) -> Grant | None:
        """Ends the lease, if it is still this one; what it was."""
        found: Any = self._redis.hmget(keys.lease(token), "reviewer", "queue", "cluster", "items")
        if found[0] is None or found[0].decode() != reviewer:
            return None
        items = tuple(found[3].decode().split("\n"))
        self._drop(keys=[keys.PREFIX], args=[found[2], token, items[0]])
        return Grant(token, datetime.now(UTC), reviewer, found[1].decode(), found[2].decode(), items)

    def answered(self, request_id: str, reviewer: str, tokens: Sequence[int]) -> bool:
        """Remembers what a request was granted, a token at least. False when it has been withdrawn: whoever asked will
        not hear of it."""
        return _WITHDRAWN not in self._of_request(request_id, reviewer, list(map(str, tokens)))

    def withdraw(self, request_id: str, reviewer: str) -> list[int]:
        """The tokens that a request was granted; one that is not answered yet will be told that it is withdrawn."""
        found = self._of_request(request_id, reviewer, [_WITHDRAWN])
        return [int(each) for each in found - {_WITHDRAWN}]

    def shrink(self, token: int, items: Sequence[str]) -> None:
        """Takes items out of a lease."""
        self._shrink(keys=[keys.PREFIX], args=[token, *items])

    def holders(self, tokens: Sequence[bytes | None]) -> list[str | None]:
        """Whose each lease is; None for one that is over."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for token in tokens:
                if token is not None:
                    pipeline.hget(keys.lease(int(token)), "reviewer")
            found = iter(pipeline.execute())
        reviewers = [None if token is None else next(found) for token in tokens]
        return [None if reviewer is None else reviewer.decode() for reviewer in reviewers]

    def _of_request(self, request_id: str, reviewer: str, news: Sequence[str]) -> set[str]:
        """What is known of a request, with the news. Atomic: the later caller sees both updates."""
        key = keys.asked(reviewer, request_id)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.sadd(key, *news)
            pipeline.pexpire(key, self._milliseconds)
            pipeline.smembers(key)
            found: set[bytes] = pipeline.execute()[-1]
        return {each.decode() for each in found}

    def _from_lanes(self, lanes: Sequence[str], queue: str, reviewer: str, count: int, wanted: str) -> list[Grant]:
        """By scripts that each look at a bounded number of items, so that none keeps Redis from all others."""
        grants: list[Grant] = []
        lane, place = _FIRST_LANE, 0
        while lane:
            reply = self._lease(
                keys=[keys.PREFIX, *lanes],
                args=[
                    *(reviewer, queue, self._milliseconds, MAX_TOGETHER, count - len(grants), wanted),
                    *(lane, place, LOOKED_AT),
                ],
            )
            if reply is None:
                raise NotReady("the index is being built from the topics; try again in a moment")
            granted, lane, place = reply
            grants += [_grant(each, reviewer, queue, "") for each in granted]
        return grants


def _grant(reply: Any, reviewer: str, queue: str, cluster: str) -> Grant:
    items = tuple(item.decode() for item in reply[2])
    return Grant(int(reply[0]), _time(reply[1]), reviewer, queue, cluster, items)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
