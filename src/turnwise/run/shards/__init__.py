"""Work in shards, whose results do not depend on who does them: here, or as tasks of Ray on many machines."""
