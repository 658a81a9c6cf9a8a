"""How much at once: rates, a timetable for them, how many in flight, how many retries."""
