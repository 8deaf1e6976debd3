"""What runs beside a production line: watching folders, the journal, drift, webhooks, reloading."""
