"""What people do beside reading and storing: sign up, log in, make things."""

from __future__ import annotations

from schemas.events import LoggedIn, ResourceCreated, SignedUp
from topology.agents import Batches, agent
from topology.rollups.declaration import ByType, Rollup
from topology.rollups.measures import Count, Distinct

ACTIONS = {
    SignedUp: "signed_up",
    LoggedIn: "logged_in",
    ResourceCreated: "resource_created",
}

user_activity = Rollup(
    "user_activity",
    key=[ByType("action", ACTIONS)],
    measures={
        "events": Count(*ACTIONS),
        "unique_users": Distinct(ACTIONS, "user_id"),
    },
)


@agent(group="rollups", rollups=[user_activity])
async def activity(batches: Batches) -> None:
    async for batch in batches:
        await batch.fold(user_activity)
