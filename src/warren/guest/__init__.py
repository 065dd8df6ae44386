"""Host side of the protocol that guestd speaks."""
