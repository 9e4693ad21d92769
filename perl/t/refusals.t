use Mojo::Base -strict;
use lib 't/lib';

use Minion;
use MinionServer;
use Test::More;

my $server = MinionServer->start;
my $minion = $server->minion;

eval { $minion->enqueue(test => [] => {attempts => 0}) };
like $@, qr/^Invalid attempts: /, 'the field is named';
eval { $minion->enqueue('x' x 256) };
like $@, qr/^Invalid task: /, 'the field is named';
is $minion->stats->{enqueued_jobs}, 0, 'nothing was enqueued';

ok !$minion->job(1),          'no such job';
ok !$minion->job('nonsense'), 'no such job';
ok !$minion->backend->finish_job('nonsense', 0), 'no such job';

eval { Minion->new(Rest => $server->url, 'wrong')->stats };
like $@, qr/key/i, 'a wrong key is refused';
eval { Minion->new(Rest => 'http://127.0.0.1:1', 'key')->stats };
like $@, qr{^GET /v1/stats: }, 'no server';

done_testing;
