-- Length of the forecast as the container is told it: what an attempt took says something of others
-- of the same length. NULL where the model does not need to be told, and before this version.
ALTER TABLE attempts ADD COLUMN forecast_duration TEXT;
