"""The room for the cost of a scheduled kernel; schedules follow fixed rules so far."""
