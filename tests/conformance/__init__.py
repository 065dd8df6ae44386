"""guestd through the real client: one test for each fact of the E2B wire that its clients rely on."""
