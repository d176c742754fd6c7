"""Low-rated items are known only after they were rated."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recbole_ganprompt.data.dislikes import Dislikes
from recbole_ganprompt.data.sequences import Sequences


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 11)), min_size=1, max_size=8),
)
def test_before_is_the_last_items_of_strictly_earlier_times(times_of_users, asked):
    times = [sorted(times) for times in times_of_users]
    lengths = [len(one) for one in times]
    items = np.arange(1, sum(lengths) + 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    dislikes = Dislikes(Sequences(items, offsets), np.array(sum(times, []), dtype=np.float64))
    users = np.array([user % len(times) for user, _ in asked])
    moments = np.array([float(moment) for _, moment in asked])
    found = dislikes.before(users, moments, 3)
    for row, user, moment in zip(found, users, moments):
        own = items[offsets[user] : offsets[user + 1]]
        expected = [item for item, time in zip(own, times[user]) if time < moment][-3:]
        assert row.tolist() == expected + [0] * (3 - len(expected))
