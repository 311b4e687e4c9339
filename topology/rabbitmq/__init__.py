"""The log on RabbitMQ. Start reading at ``log.py``."""
