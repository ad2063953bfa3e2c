"""A capability that cfx does not have, written as a newcomer would: a room, a command file and a page."""
